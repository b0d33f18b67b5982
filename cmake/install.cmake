# SPDX-License-Identifier: Apache-2.0
# find_package(Terrace) for programs that link the library. Only headers free of TBB, oneDNN and xsimd are installed.
include(CMakePackageConfigHelpers)
set(libraries terrace_engine terrace_sparse terrace_attention terrace_models)
install(TARGETS ${libraries} EXPORT TerraceTargets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(EXPORT TerraceTargets NAMESPACE Terrace:: DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/Terrace)
foreach(folder engine sparse attention models)
  install(DIRECTORY ${folder} DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/terrace FILES_MATCHING PATTERN "*.h"
          PATTERN "kernels" EXCLUDE)
  # Of the kernels only the tables of pointers, which the layers' headers name.
  file(GLOB tables ${folder}/kernels/*_kernels.h ${folder}/kernels/kv_page.h)
  install(FILES ${tables} DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/terrace/${folder}/kernels)
endforeach()
configure_package_config_file(cmake/TerraceConfig.cmake.in ${PROJECT_BINARY_DIR}/TerraceConfig.cmake
                              INSTALL_DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/Terrace)
write_basic_package_version_file(${PROJECT_BINARY_DIR}/TerraceConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/TerraceConfig.cmake ${PROJECT_BINARY_DIR}/TerraceConfigVersion.cmake
        DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/Terrace)
if(TARGET terrace)
  install(TARGETS terrace RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()
