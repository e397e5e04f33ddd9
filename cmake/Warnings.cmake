# Our own code only; Torch and every other library come in as SYSTEM.
add_library(hesper_warnings INTERFACE)
target_compile_options(hesper_warnings INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -pedantic -Werror>)
