# The libraries leave the process to its program, checked as a test: nothing in them ends it, prints, or changes signal
# handlers.
#   cmake -DNM=nm -DLIBRARIES=a.a,b.a -P check_symbols.cmake
cmake_minimum_required(VERSION 3.25)
set(exits "abort|exit|_exit|_Exit|quick_exit|raise|kill")
set(prints "stdout|stderr|_ZSt4cout|_ZSt4cerr|_ZSt4clog|_ZSt5wcout|_ZSt5wcerr|v?f?printf|__v?f?printf_chk|f?puts|"
           "putchar|putc|fputc|fwrite|perror")
set(signals "signal|sigaction|bsd_signal|sigprocmask|pthread_sigmask|_ZSt13set_terminate.*|_ZSt15set_new_handler.*")
string(JOIN "" prints ${prints})

set(violations "")
string(REPLACE "," ";" libraries "${LIBRARIES}")
foreach(library IN LISTS libraries)
  execute_process(COMMAND ${NM} --undefined-only --print-file-name ${library} OUTPUT_VARIABLE symbols
                  RESULT_VARIABLE code ERROR_QUIET)
  if(NOT code EQUAL 0 OR symbols STREQUAL "")
    message(FATAL_ERROR "${NM} cannot read ${library}")
  endif()
  string(REGEX MATCHALL "[^\n]+" lines "${symbols}")
  foreach(line IN LISTS lines)
    if(line MATCHES " (${exits}|${prints}|${signals})(@.*)?$")
      cmake_path(GET library FILENAME name)
      string(REGEX REPLACE "^[^:]*:" "${name}: " line "${line}")
      list(APPEND violations "${line}")
    endif()
  endforeach()
endforeach()

if(violations)
  list(JOIN violations "\n  " text)
  message(FATAL_ERROR "a library must return errors or throw them:\n  ${text}")
endif()
