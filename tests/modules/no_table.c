/* A shared object that is no module. */
int sel_test_no_table(void);
int sel_test_no_table(void)
{
    return 0;
}
