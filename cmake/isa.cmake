# SPDX-License-Identifier: Apache-2.0
# The only place where instruction-set flags appear. Nothing else in the tree is compiled above the baseline.
set(TERRACE_ISA_FLAGS_scalar "")
set(TERRACE_ISA_FLAGS_avx2 -mavx2 -mfma)
set(TERRACE_ISA_FLAGS_avxvnni ${TERRACE_ISA_FLAGS_avx2} -mavxvnni)
set(TERRACE_ISA_FLAGS_avx512 -mavx2 -mfma -mavx512f -mavx512cd -mavx512dq -mavx512bw -mavx512vl)
set(TERRACE_ISA_FLAGS_avx512vnni ${TERRACE_ISA_FLAGS_avx512} -mavx512vnni)
set(TERRACE_ISA_FLAGS_avx512amx ${TERRACE_ISA_FLAGS_avx512vnni} -mavx512bf16 -mamx-tile -mamx-int8 -mamx-bf16)
set(TERRACE_ISA_FLAGS_neon "")
set(TERRACE_ISA_FLAGS_neondot -march=armv8.2-a+dotprod)

if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
  set(TERRACE_ISAS scalar avx2 avxvnni avx512 avx512vnni avx512amx)
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "^(aarch64|arm64)$")
  set(TERRACE_ISAS scalar neon neondot)
else()
  set(TERRACE_ISAS scalar)
endif()

# terrace_add_isa_kernels(target family [folder]): adds <folder>/kernels/<family>_<isa>.cpp (the current folder by
# default), for each instruction set of the target processor for which the file exists, compiled with that set's flags.
# Every build type, release too, compiles kernels with -O2, which comes after its own level and overrides it:
# unoptimised vector code is too slow to test with, and at -O0 it leaves weak symbols that the linker could merge across
# instruction sets.
function(terrace_add_isa_kernels target family)
  set(folder ${CMAKE_CURRENT_SOURCE_DIR})
  if(ARGC GREATER 2)
    set(folder ${ARGV2})
  endif()
  foreach(isa IN LISTS TERRACE_ISAS)
    set(source ${folder}/kernels/${family}_${isa}.cpp)
    if(EXISTS ${source})
      target_sources(${target} PRIVATE ${source})
      set_source_files_properties(${source} PROPERTIES COMPILE_OPTIONS "${TERRACE_ISA_FLAGS_${isa}};-O2")
      string(TOUPPER ${isa} upper)
      target_compile_definitions(${target} PRIVATE TERRACE_HAVE_${upper}=1)
    endif()
  endforeach()
  target_sources(${target} PRIVATE ${folder}/kernels/${family}_dispatch.cpp)
endfunction()
