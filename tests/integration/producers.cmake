# The producers in other languages, against the vectors and a broker that makes trouble. Debian's own
# python3 sees python3-zmq and python3-msgpack; without them the tests are skipped and say so. Nothing in
# them is compiled: there is nothing for sanitizers.
if(SEL_SANITIZE)
  return()
endif()
find_program(SEL_PYTHON3_DEBIAN NAMES python3 PATHS /usr/bin NO_DEFAULT_PATH)
if(SEL_PYTHON3_DEBIAN)
  foreach(part Vectors PythonTrouble NodeTrouble)
    add_test(NAME integration_test_producers_${part}
             COMMAND ${SEL_PYTHON3_DEBIAN} ${CMAKE_CURRENT_LIST_DIR}/test_producers.py ${part})
    set_tests_properties(integration_test_producers_${part} PROPERTIES
        LABELS slow TIMEOUT 280 SKIP_RETURN_CODE 77
        ENVIRONMENT "SEL_NODE_PRODUCER=${CMAKE_BINARY_DIR}/tests/node_producer")
  endforeach()
  sel_tests_cost(40 integration_test_producers_PythonTrouble integration_test_producers_NodeTrouble)
endif()
