# The same seed in two processes: what they print must be the same, the hash of the history too.
foreach(seed RANGE 321 330)
  execute_process(COMMAND ${SIM} --seed ${seed} OUTPUT_VARIABLE first COMMAND_ERROR_IS_FATAL ANY)
  execute_process(COMMAND ${SIM} --seed ${seed} OUTPUT_VARIABLE second COMMAND_ERROR_IS_FATAL ANY)
  if(NOT first STREQUAL second OR NOT first MATCHES "hash [0-9a-f]+")
    message(FATAL_ERROR "two runs of one seed differ:\n${first}${second}")
  endif()
endforeach()
