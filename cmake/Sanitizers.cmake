if(HESPER_SANITIZE)
  add_compile_options(-fsanitize=${HESPER_SANITIZE} -fno-omit-frame-pointer)
  add_link_options(-fsanitize=${HESPER_SANITIZE})
endif()
