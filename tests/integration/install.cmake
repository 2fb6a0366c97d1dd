# libselinon installed, found by pkg-config and used by a program of somebody else.
if(SEL_SANITIZE)
  set(flags -fsanitize=${SEL_SANITIZE})
endif()
add_test(NAME integration_test_install
         COMMAND ${SEL_PYTHON3} ${CMAKE_CURRENT_LIST_DIR}/test_install.py ${CMAKE_BINARY_DIR}
                 ${CMAKE_C_COMPILER} "${flags}" $<TARGET_FILE:selinon-broker>
                 $<TARGET_FILE:selinon-worker>)
set_tests_properties(integration_test_install PROPERTIES LABELS slow TIMEOUT 280
                                                         SKIP_RETURN_CODE 77)
if(SEL_SANITIZE MATCHES thread)
  # The program of somebody else has no suppressions of ours (cmake/tsan.c) for what libzmq does.
  set_tests_properties(integration_test_install PROPERTIES
                       ENVIRONMENT "TSAN_OPTIONS=ignore_noninstrumented_modules=1")
endif()
