// SPDX-License-Identifier: Apache-2.0
#include "cli/cli.h"
namespace fettle::cli { int run(int, char**) { return 0; } }
