# SPDX-License-Identifier: Apache-2.0
from fettle import main

main()
