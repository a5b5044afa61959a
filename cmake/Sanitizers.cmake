# LANEWISE_SANITIZE instruments everything that is built here, dependencies too: a sanitizer that
# sees only half of a program reports nonsense.
if(LANEWISE_SANITIZE)
  set(sanitizer_flags -fsanitize=${LANEWISE_SANITIZE} -fno-omit-frame-pointer)
  if(LANEWISE_SANITIZE MATCHES "undefined")
    list(APPEND sanitizer_flags -fno-sanitize-recover=undefined)
  endif()
  add_compile_options(${sanitizer_flags} -g1)
  add_link_options(${sanitizer_flags})
endif()
