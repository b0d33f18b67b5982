// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

namespace terrace {

/// Where the limits of this process's control group (cgroup v2) and of the groups around it lie, innermost
/// first: a process may use what the tightest of them allows. Empty where there are none.
std::vector<std::string> control_group_folders();

/// The same for the text of /proc/self/cgroup and the folder that the groups are mounted at.
std::vector<std::string> control_group_folders(const std::string& membership, const std::string& root);

}  // namespace terrace
