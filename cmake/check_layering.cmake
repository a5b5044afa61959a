message(STATUS "stub")
