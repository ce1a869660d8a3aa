// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)

#define VERSION 1
#define NUMBER __u64
#include "counted.h"
