# Our own code only; Torch and every other library come in as SYSTEM.
add_library(hesper_warnings INTERFACE)
target_compile_options(hesper_warnings INTERFACE
  "$<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra;-pedantic;-Werror>"
  "$<$<COMPILE_LANGUAGE:CUDA>:-Werror=all-warnings;-Xcompiler=-Wall,-Wextra,-Werror>")
if(CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
  target_compile_options(hesper_warnings INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-Wno-source-uses-openmp>)
endif()
