// SPDX-License-Identifier: Apache-2.0

// Package v1 stands in for the module of that name, of which CRI-O uses one constant.
package v1

// AnnotationFilepath is where CRI-O looks for the file name of a layer of an
// artifact, which no test pulls.
const AnnotationFilepath = "org.cncf.model.filepath"
