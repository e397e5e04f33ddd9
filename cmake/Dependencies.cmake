find_package(PkgConfig REQUIRED)
add_library(fmt INTERFACE)  # the headers inside the wheel shadow any other fmt
target_compile_definitions(fmt INTERFACE FMT_HEADER_ONLY=1)
find_package(nlohmann_json REQUIRED)
find_package(CLI11 REQUIRED)
pkg_check_modules(pcre2 REQUIRED IMPORTED_TARGET libpcre2-8)
pkg_check_modules(sentencepiece REQUIRED IMPORTED_TARGET sentencepiece)
pkg_check_modules(cairo REQUIRED IMPORTED_TARGET cairo cairo-pdf)

# at::parallel_for is a header over OpenMP: without it our loops would run on one thread. GNU's runtime is the one inside
# the wheel; clang would bring its own beside it, so with clang the loops stay serial and only `omp simd` counts.
add_library(openmp INTERFACE)
target_compile_options(openmp INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-fopenmp-simd>)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  target_compile_options(openmp INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-fopenmp>)
  target_link_libraries(openmp INTERFACE ${torch}/lib/libgomp.so.1)
endif()
