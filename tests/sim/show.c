/* Frames in words, for people who read a history. */
#include <stdio.h>

#include "core/arena.h"
#include "tests/sim/run.h"

static void show_item(struct sel_run *run, const struct sel_wire_item *item)
{
    const struct sel_deed *deed = sel_oracle_deed(run, item->id);
    printf(" %s", sel_wire_record_name(item->type));
    if (deed)
        printf(" #%u", deed->index);
    if (item->type == SEL_RECORD_REFUSED)
        printf(" (%s of %llu)", sel_wire_code_name(item->code), (unsigned long long)item->handle);
    else if (item->code)
        printf(" code %u", item->code);
    if (item->try_count || item->delivery)
        printf(" %u/%u", item->try_count, item->delivery);
    printf(";");
}

static void show_data(struct sel_run *run, struct sel_str frame)
{
    struct sel_wire_head head;
    struct sel_str records;
    struct sel_wire_item item;
    if (sel_wire_decode_data(frame, &head, &records, NULL) < 0) {
        printf("DATA (bad)");
        return;
    }
    printf("DATA %llx first %llu ack %llu settled %llu credit %llu/%llu%s%s:",
           (unsigned long long)head.session, (unsigned long long)head.first,
           (unsigned long long)head.ack, (unsigned long long)head.settled,
           (unsigned long long)head.credit_records, (unsigned long long)head.credit_bytes,
           head.flags & SEL_HEAD_ANSWER ? " answer" : "",
           head.flags & SEL_HEAD_RESEND ? " resend" : "");
    while (sel_wire_next(&records, &item, NULL) > 0)
        show_item(run, &item);
}

static void show_plain(struct sel_arena *arena, int type, struct sel_str frame)
{
    struct sel_wire_hello hello;
    struct sel_wire_welcome welcome;
    struct sel_wire_error error;
    struct sel_wire_beat beat;
    printf("%s", sel_wire_message_name((unsigned)type));
    if (type == SEL_MESSAGE_HELLO && sel_wire_decode_hello(arena, frame, &hello, NULL) == 0)
        printf(" %016llx inc %u n %llu session %llx ack %llu held %zu",
               (unsigned long long)hello.peer.hi, hello.incarnation, (unsigned long long)hello.n,
               (unsigned long long)hello.session, (unsigned long long)hello.ack,
               hello.held.n / SEL_WIRE_HELD_SIZE);
    else if (type == SEL_MESSAGE_WELCOME &&
             sel_wire_decode_welcome(arena, frame, &welcome, NULL) == 0)
        printf(" n %llu session %llx%s ack %llu credit %llu/%llu", (unsigned long long)welcome.n,
               (unsigned long long)welcome.session, welcome.resumed ? " resumed" : "",
               (unsigned long long)welcome.ack, (unsigned long long)welcome.credit_records,
               (unsigned long long)welcome.credit_bytes);
    else if (type == SEL_MESSAGE_ERROR && sel_wire_decode_error(arena, frame, &error, NULL) == 0)
        printf(" %s: %.*s%s%s at %llu", sel_wire_code_name(error.code), SEL_STR_ARG(error.text),
               error.retry ? " retry" : "", error.close ? " close" : "",
               (unsigned long long)error.at);
    else if (type == SEL_MESSAGE_BEAT && sel_wire_decode_beat(frame, &beat, NULL) == 0)
        printf(" %016llx %llu", (unsigned long long)beat.peer.hi, (unsigned long long)beat.count);
}

void sel_show_frame(struct sel_run *run, const char *from, const char *to, struct sel_str frame)
{
    struct sel_arena arena = {0};
    printf("             %s > %s: ", from, to);
    int type = sel_wire_message_type(frame, NULL);
    if (type == SEL_MESSAGE_DATA)
        show_data(run, frame);
    else if (type > 0)
        show_plain(&arena, type, frame);
    else
        printf("%zu bytes of nothing", frame.n);
    printf("\n");
    sel_arena_done(&arena);
}
