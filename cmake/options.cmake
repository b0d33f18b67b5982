# SPDX-License-Identifier: Apache-2.0
# Compile options that every Terrace target shares, as the interface target terrace_options.
add_library(terrace_options INTERFACE)
target_compile_options(
  terrace_options
  INTERFACE -Wall
            -Wextra
            -Wpedantic
            -Wshadow
            -Wno-missing-field-initializers # designated initialisers leave defaults on purpose
            # A compiler that fuses a*b+c where it likes would break "same bits for any split": FMA only where written.
            -ffp-contract=off)
target_include_directories(terrace_options INTERFACE $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}>)
if(TERRACE_WERROR)
  target_compile_options(terrace_options INTERFACE -Werror)
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # These depend on what the optimiser inlined, and GCC 12 reports correct standard-library code with them.
    target_compile_options(terrace_options INTERFACE -Wno-error=restrict -Wno-error=stringop-overflow
                                                     -Wno-error=maybe-uninitialized -Wno-error=array-bounds)
  elseif(CMAKE_CXX_COMPILER_ID MATCHES "Clang")
    # A loop that is marked for unrolling and could not be, with sanitizers, is slower and not wrong.
    target_compile_options(terrace_options INTERFACE -Wno-error=pass-failed)
  endif()
endif()
if(TERRACE_SANITIZE)
  target_compile_options(terrace_options INTERFACE -fsanitize=${TERRACE_SANITIZE} -fno-omit-frame-pointer
                                                   -fno-sanitize-recover=all)
  target_link_options(terrace_options INTERFACE -fsanitize=${TERRACE_SANITIZE})
  if(TERRACE_SANITIZE STREQUAL "thread" AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # ThreadSanitizer does not model fences; the one in attention/page_store.cpp orders what a reference count guards.
    target_compile_options(terrace_options INTERFACE -Wno-tsan)
  endif()
endif()
if(TERRACE_BUILD_FUZZ)
  # Coverage of the library itself guides the fuzzer; only the fuzz targets link its main.
  target_compile_options(terrace_options INTERFACE -fsanitize=fuzzer-no-link)
endif()
target_compile_definitions(terrace_options INTERFACE $<$<CONFIG:Debug>:_GLIBCXX_ASSERTIONS>)

# terrace_add_library(folder): target terrace_<folder> from the folder's .cpp files and its kernels.
function(terrace_add_library name)
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.cpp)
  file(GLOB headers CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.h)
  add_library(terrace_${name} STATIC ${sources} ${headers})
  add_library(Terrace::${name} ALIAS terrace_${name})
  set_target_properties(terrace_${name} PROPERTIES EXPORT_NAME ${name})
  target_link_libraries(terrace_${name} PRIVATE $<BUILD_INTERFACE:terrace_options>)
  target_include_directories(terrace_${name} PUBLIC $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}>
                                                    $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}/terrace>)
  target_compile_features(terrace_${name} PUBLIC cxx_std_20)
endfunction()
