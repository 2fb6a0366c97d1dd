#include <inttypes.h>
#include <lmdb.h>
#include <msgpack/sysdep.h> /* version.h needs it */
#include <msgpack/version.h>
#include <sys/utsname.h>
#include <yajl/yajl_version.h>
#include <yaml.h>

#include <selinon/base.h>

#include "cli/cli.h"

#define CODENAME "Kingfisher"

struct values {
    bool codename;
};

static const struct sel_cli_option options[] = {
    {.name = "codename",
     .kind = SEL_CLI_FLAG,
     .offset = offsetof(struct values, codename),
     .env = {"SELINON_VERSION_CODENAME"},
     .help = "print the code name of this release only"},
};

/* The libraries as they are linked at run time, where they tell; liburing and the schema validator
 * are known from the build. */
static void print_libraries(FILE *out)
{
    struct utsname kernel;
    fprintf(out, "liburing %s\n", SEL_URING_VERSION);
    fprintf(out, "libyaml %s\n", yaml_get_version_string());
    int yajl = yajl_version();
    fprintf(out, "yajl %d.%d.%d\n", yajl / 10000, yajl / 100 % 100, yajl % 100);
    fprintf(out, "msgpack %s\n", msgpack_version());
    int major, minor, patch;
    (void)mdb_version(&major, &minor, &patch); /* the same as text with a date */
    fprintf(out, "lmdb %d.%d.%d\n", major, minor, patch);
    if (uname(&kernel) == 0)
        fprintf(out, "kernel %s\n", kernel.release);
}

static int run(const struct sel_cli *cli, const void *p)
{
    const struct values *values = p;
    if (values->codename) {
        fprintf(cli->out, "%s\n", CODENAME);
        return sel_cli_finish(cli, SEL_CLI_OK);
    }
    fprintf(cli->out, "selinon %s\n", SEL_VERSION);
    fprintf(cli->out, "module-abi %" PRIu32 ".%" PRIu32 "\n", SEL_MODULE_ABI >> 16,
            SEL_MODULE_ABI & 0xffff);
    print_libraries(cli->out);
    return sel_cli_finish(cli, SEL_CLI_OK);
}

const struct sel_cli_command sel_cli_cmd_version = {
    .name = "version",
    .about = "Print the versions of the program and its libraries.",
    .options = options,
    .option_count = SEL_COUNT(options),
    .values_size = sizeof(struct values),
    .run = run,
};
