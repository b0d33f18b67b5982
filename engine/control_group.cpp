// SPDX-License-Identifier: Apache-2.0
#include "engine/control_group.h"

#include <fstream>
#include <iterator>
#include <sstream>

namespace terrace {

std::vector<std::string> control_group_folders(const std::string& membership, const std::string& root) {
  std::istringstream lines(membership);
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with("0::/")) continue;  // other lines are of version 1
    std::vector<std::string> folders;
    for (std::string group = line.substr(3); group.size() > 1; group.resize(group.find_last_of('/')))
      folders.push_back(root + group);
    folders.push_back(root);  // in a container the mount may begin at the process's own group
    return folders;
  }
  return {};
}

std::vector<std::string> control_group_folders() {
  std::ifstream file("/proc/self/cgroup");
  const std::string membership{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  return control_group_folders(membership, "/sys/fs/cgroup");
}

}  // namespace terrace
