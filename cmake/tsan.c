/* Linked to every program that is built with ThreadSanitizer: libzmq is not, so that the way in
 * which it hands memory from thread to thread is not seen. What its callers do is. */
const char *__tsan_default_suppressions(void);

__attribute__((visibility("default"))) const char *__tsan_default_suppressions(void)
{
    return "called_from_lib:libzmq.so\n";
}
