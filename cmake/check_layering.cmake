# The arrows of the design, checked as a test: apps -> model -> runtime -> kernels -> hwy.
#   cmake -DROOT=<repository> -P check_layering.cmake
cmake_minimum_required(VERSION 3.25)
set(max_lines 500)
set(violations "")

# forbid(FOLDERS pattern except-pattern why): no file of FOLDERS may include what matches `pattern`.
function(forbid folders pattern except why)
  foreach(folder IN LISTS folders)
    file(GLOB_RECURSE files RELATIVE ${ROOT} ${ROOT}/${folder}/*.cc ${ROOT}/${folder}/*.h)
    foreach(file IN LISTS files)
      if(except AND file MATCHES "${except}")
        continue()
      endif()
      file(STRINGS ${ROOT}/${file} includes REGEX "^[ \t]*#[ \t]*include[ \t]*[<\"](${pattern})")
      foreach(include IN LISTS includes)
        string(STRIP "${include}" include)
        list(APPEND violations "${file}: ${include}: ${why}")
      endforeach()
    endforeach()
  endforeach()
  set(violations "${violations}" PARENT_SCOPE)
endfunction()

forbid("kernels" "(runtime|model|apps|tests|bench)/" "" "kernels know nothing above them")
forbid("runtime" "(model|apps|tests|bench)/" "" "runtime knows kernels only")
forbid("model" "(apps|tests|bench)/" "" "model knows runtime and kernels only")
forbid("apps" "tests/" "" "programs do not use test code")
forbid("kernels;model;apps;bench;tests" "(tbb|oneapi)/" "^tests/runtime/" "TBB only in runtime")
forbid("runtime;model;apps" "hwy/" "" "Highway only in kernels")
forbid("tests;bench" "hwy/(highway|foreach_target)\\.h" "^(tests|bench)/kernels/"
       "SIMD code only in kernels")

# Headers that others include must not need Highway to compile; *-inl.h are for kernels alone.
file(GLOB headers RELATIVE ${ROOT} ${ROOT}/kernels/*.h)
list(FILTER headers EXCLUDE REGEX "-inl\\.h$")
foreach(file IN LISTS headers)
  file(STRINGS ${ROOT}/${file} includes REGEX "#[ \t]*include[ \t]*[<\"]hwy/")
  if(includes)
    list(APPEND violations "${file}: a contract has no Highway type: ${includes}")
  endif()
endforeach()
forbid("runtime;model;apps" "kernels/[^\">]*-inl\\.h" "" "SIMD code only in kernels")

# No file is too long to read.
foreach(folder kernels runtime model apps tests bench cmake)
  file(GLOB_RECURSE files RELATIVE ${ROOT} ${ROOT}/${folder}/*.cc ${ROOT}/${folder}/*.h
       ${ROOT}/${folder}/*.cmake ${ROOT}/${folder}/CMakeLists.txt)
  foreach(file IN LISTS files)
    file(READ ${ROOT}/${file} text)
    string(REGEX REPLACE "[^\n]" "" newlines "${text}")
    string(LENGTH "${newlines}" lines)
    if(lines GREATER max_lines)
      list(APPEND violations "${file}: ${lines} lines, at most ${max_lines}")
    endif()
  endforeach()
endforeach()

# Every kernel with a reference is registered, so that none escapes the completeness check.
file(READ ${ROOT}/kernels/CMakeLists.txt register)
file(GLOB references RELATIVE ${ROOT}/kernels/reference ${ROOT}/kernels/reference/*.h)
foreach(reference IN LISTS references)
  cmake_path(GET reference STEM stem)
  if(EXISTS ${ROOT}/kernels/${stem}.cc AND NOT register MATCHES "lanewise_add_kernel\\(${stem}\\)")
    list(APPEND violations "kernels/${stem}.cc: no lanewise_add_kernel(${stem}) in kernels/CMakeLists.txt")
  endif()
endforeach()

if(violations)
  list(JOIN violations "\n  " text)
  message(FATAL_ERROR "layering:\n  ${text}")
endif()
