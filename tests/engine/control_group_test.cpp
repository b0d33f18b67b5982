// SPDX-License-Identifier: Apache-2.0
#include "engine/control_group.h"

#include <doctest/doctest.h>

namespace terrace {
namespace {

using Folders = std::vector<std::string>;

TEST_CASE("control groups: the process's own and those around it, innermost first") {
  CHECK(control_group_folders("0::/\n", "/g") == Folders{"/g"});
  CHECK(control_group_folders("0::/system.slice/run-1.service\n", "/g") ==
        Folders{"/g/system.slice/run-1.service", "/g/system.slice", "/g"});
  CHECK(control_group_folders("12:memory:/old\n0::/new\n", "/g") == Folders{"/g/new", "/g"});
}

TEST_CASE("control groups: none where version 2 is not in use") {
  CHECK(control_group_folders("", "/g").empty());
  CHECK(control_group_folders("12:memory:/old\n", "/g").empty());
}

}  // namespace
}  // namespace terrace
