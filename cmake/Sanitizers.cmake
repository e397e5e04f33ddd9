# Every finding ends the program, so that a test with a finding fails. Torch itself is not instrumented, so its classes
# have no vptr records, and a vector that crosses into it may grow there unseen (tests' environment: CMakePresets.json).
if(HESPER_SANITIZE)
  add_compile_options(-fsanitize=${HESPER_SANITIZE} -fno-sanitize=vptr -fno-sanitize-recover=all -fno-omit-frame-pointer)
  add_compile_definitions(_GLIBCXX_ASSERTIONS)
  add_link_options(-fsanitize=${HESPER_SANITIZE})
endif()
