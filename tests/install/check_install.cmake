# Installs BUILD into a fresh folder, builds the consumer project against it, and runs that; then finds
# its components, and takes LANEWISE, the source, into a parent project.
#   cmake -DBUILD=<build folder> -DSOURCE=<tests/install> -DWORK=<scratch> ... -P check_install.cmake
function(run)
  execute_process(COMMAND ${ARGN} RESULT_VARIABLE result OUTPUT_VARIABLE out ERROR_VARIABLE out)
  if(NOT result EQUAL 0)
    list(JOIN ARGN " " command)
    message(FATAL_ERROR "failed (${result}): ${command}\n${out}")
  endif()
endfunction()

file(REMOVE_RECURSE ${WORK})
run(${CMAKE_COMMAND} --install ${BUILD} --prefix ${WORK}/prefix)
# Seen from another folder, so that no path of the source tree can help.
file(COPY ${SOURCE}/consumer ${SOURCE}/components ${SOURCE}/parent DESTINATION ${WORK})

# configure(FOLDER BUILD options...)
function(configure folder build)
  run(${CMAKE_COMMAND} -S ${WORK}/${folder} -B ${WORK}/${build} -G ${GENERATOR}
      -DCMAKE_BUILD_TYPE=Release -DCMAKE_CXX_COMPILER=${COMPILER} -DTBB_DIR=${TBB_DIR}
      "-DCMAKE_CXX_FLAGS=${FLAGS}" ${ARGN})
endfunction()

configure(consumer build -DCMAKE_PREFIX_PATH=${WORK}/prefix)
run(${CMAKE_COMMAND} --build ${WORK}/build)
run(${WORK}/build/consumer)

configure(components build_components -DCMAKE_PREFIX_PATH=${WORK}/prefix)

# The sources that BUILD was made from, where CMake fetched them: not twice.
set(sources "")
foreach(name HIGHWAY TBB NLOHMANN_JSON XXHASH)
  if(${name}_SOURCE)
    list(APPEND sources -DFETCHCONTENT_SOURCE_DIR_${name}=${${name}_SOURCE})
  endif()
endforeach()
configure(parent build_parent -DLANEWISE=${LANEWISE} ${sources})
run(${CMAKE_COMMAND} --build ${WORK}/build_parent --target user)
configure(parent build_parent_own -DLANEWISE=${LANEWISE} -DOWN_TARGETS=ON -DJSON=${JSON})
run(${CMAKE_COMMAND} --build ${WORK}/build_parent_own --target user)
