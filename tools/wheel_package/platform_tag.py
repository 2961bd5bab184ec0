# SPDX-License-Identifier: Apache-2.0
"""Tells hatchling that the wheel holds a program for one platform."""

import os

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class PlatformTag(BuildHookInterface):
    def initialize(self, version, build_data):
        build_data["pure_python"] = False
        build_data["tag"] = os.environ["FETTLE_WHEEL_TAG"]
