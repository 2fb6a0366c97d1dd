# The producers in other languages, against the vectors and a broker that makes trouble. Debian's own
# python3 sees python3-zmq and python3-msgpack; without them the test is skipped and says so.
find_program(SEL_PYTHON3_DEBIAN NAMES python3 PATHS /usr/bin NO_DEFAULT_PATH)
if(SEL_PYTHON3_DEBIAN)
  add_test(NAME integration_test_producers
           COMMAND ${SEL_PYTHON3_DEBIAN} ${CMAKE_CURRENT_LIST_DIR}/test_producers.py)
  set_tests_properties(integration_test_producers PROPERTIES
      LABELS slow TIMEOUT 280 SKIP_RETURN_CODE 77
      ENVIRONMENT "SEL_NODE_PRODUCER=${CMAKE_BINARY_DIR}/tests/node_producer")
endif()
