// SPDX-License-Identifier: Apache-2.0

module github.com/CloudNativeAI/model-spec

go 1.23
