enable_testing()

# Sanitizers slow a test down by up to twenty times, on machines that are busy besides: they have longer,
# and do a part of what is merely repeated (SEL_TEST_PART: one in so many), each path of it at least once.
if(SEL_SANITIZE)
  set(SEL_TEST_TIMEOUT 300)
  set(SEL_TEST_PART 4)
else()
  set(SEL_TEST_TIMEOUT 60)
  set(SEL_TEST_PART 1)
endif()

# Those that take longest, seconds as measured: they begin first, so that none is left alone at the end.
function(sel_tests_cost cost)
  set_tests_properties(${ARGN} PROPERTIES COST ${cost})
endfunction()

# sel_unit_test(<folder> <library>...): one cmocka program for each test_*.c of the folder.
function(sel_unit_test_dir)
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/test_*.c)
  foreach(source ${sources})
    get_filename_component(name ${source} NAME_WE)
    add_executable(${name} ${source})
    target_link_libraries(${name} PRIVATE ${ARGN} PkgConfig::CMOCKA)
    set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests
                                             ENABLE_EXPORTS ON)
    add_test(NAME ${name} COMMAND ${name} WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
    set_tests_properties(${name} PROPERTIES LABELS unit TIMEOUT ${SEL_TEST_TIMEOUT})
  endforeach()
endfunction()
