find_package(PkgConfig REQUIRED)
add_library(fmt INTERFACE)  # the headers inside the wheel shadow any other fmt
target_compile_definitions(fmt INTERFACE FMT_HEADER_ONLY=1)
find_package(nlohmann_json REQUIRED)
find_package(CLI11 REQUIRED)
pkg_check_modules(pcre2 REQUIRED IMPORTED_TARGET libpcre2-8)
find_library(utf8proc_library utf8proc REQUIRED)
find_path(utf8proc_headers utf8proc.h REQUIRED)
find_library(sentencepiece_library sentencepiece REQUIRED)  # Ubuntu 24.04's .pc asks for a protobuf that is not needed
find_path(sentencepiece_headers sentencepiece_processor.h REQUIRED)
add_library(sentencepiece INTERFACE)
target_link_libraries(sentencepiece INTERFACE ${sentencepiece_library})
target_include_directories(sentencepiece SYSTEM INTERFACE ${sentencepiece_headers})
pkg_check_modules(cairo REQUIRED IMPORTED_TARGET cairo cairo-pdf)
pkg_check_modules(curl REQUIRED IMPORTED_TARGET libcurl)
find_package(OpenSSL 3 REQUIRED COMPONENTS Crypto)
find_package(ZLIB REQUIRED)

# at::parallel_for is a header over OpenMP: without it our loops would run on one thread. GNU's runtime is the one inside
# the wheel; clang would bring its own beside it, so with clang the loops stay serial and only `omp simd` counts.
add_library(openmp INTERFACE)
target_compile_options(openmp INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-fopenmp-simd>)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  target_compile_options(openmp INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-fopenmp>)
  target_link_libraries(openmp INTERFACE ${torch}/lib/libgomp.so.1)
endif()
