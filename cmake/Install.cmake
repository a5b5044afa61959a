# cmake --install: include/lanewise/{kernels,runtime,model}, the libraries, the program, and a package
# for find_package(lanewise CONFIG) with the components kernels, runtime and model: lanewise::kernels
# and so on, each with a file of its own, because each needs other packages.
include(CMakePackageConfigHelpers)
set(lanewise_package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/lanewise)

if(TARGET lanewise)
  install(TARGETS lanewise)
endif()
foreach(folder kernels runtime model)
  install(TARGETS lanewise_${folder} EXPORT lanewise_${folder})
  install(EXPORT lanewise_${folder} NAMESPACE lanewise:: DESTINATION ${lanewise_package_dir})
  install(DIRECTORY ${PROJECT_SOURCE_DIR}/${folder}
          DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/lanewise
          FILES_MATCHING PATTERN "*.h" PATTERN "*-inl.h" EXCLUDE PATTERN "reference" EXCLUDE)
endforeach()

configure_package_config_file(
  ${PROJECT_SOURCE_DIR}/cmake/lanewiseConfig.cmake.in
  ${PROJECT_BINARY_DIR}/lanewiseConfig.cmake INSTALL_DESTINATION ${lanewise_package_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/lanewiseConfigVersion.cmake
                                 COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/lanewiseConfig.cmake
              ${PROJECT_BINARY_DIR}/lanewiseConfigVersion.cmake
        DESTINATION ${lanewise_package_dir})
