/* worker/co_switch.S - the change of stacks, the one thing that C cannot say.
 *
 *   void sel_co_switch(void **save_sp, void *to_sp);
 *
 * pushes what the ABI lets a callee keep, stores the stack pointer in *save_sp, takes to_sp and pops
 * the same from there. The layout of both stacks is the same at the moment of the change, so the CFI
 * holds for either and a debugger unwinds a running or a suspended coroutine. A new stack is laid
 * out by prepare_frame of co.c such that the first switch "returns" to sel_co_entry, where unwinding
 * ends. Signal masks are not switched: that needs a system call and is what makes swapcontext slow. */

#if defined(__x86_64__)

    .text
    .globl sel_co_switch
    .hidden sel_co_switch
    .type sel_co_switch, @function
    .p2align 4
sel_co_switch:
    .cfi_startproc
    pushq %rbp
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %rbp, 0
    pushq %rbx
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %rbx, 0
    pushq %r12
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %r12, 0
    pushq %r13
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %r13, 0
    pushq %r14
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %r14, 0
    pushq %r15
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %r15, 0
    subq $8, %rsp
    .cfi_adjust_cfa_offset 8
    stmxcsr (%rsp) /* rounding and masks of SSE and x87 are the callee's to keep too */
    fnstcw 4(%rsp)
    movl (%rsp), %eax
    movzwl 4(%rsp), %edx
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    /* Loading the control words is slow and they hardly ever differ: compare first. */
    cmpl %eax, (%rsp)
    jne 1f
    cmpw %dx, 4(%rsp)
    jne 1f
2:
    addq $8, %rsp
    .cfi_adjust_cfa_offset -8
    popq %r15
    .cfi_adjust_cfa_offset -8
    .cfi_restore %r15
    popq %r14
    .cfi_adjust_cfa_offset -8
    .cfi_restore %r14
    popq %r13
    .cfi_adjust_cfa_offset -8
    .cfi_restore %r13
    popq %r12
    .cfi_adjust_cfa_offset -8
    .cfi_restore %r12
    popq %rbx
    .cfi_adjust_cfa_offset -8
    .cfi_restore %rbx
    popq %rbp
    .cfi_adjust_cfa_offset -8
    .cfi_restore %rbp
    /* Not `ret`: the processor's return predictor would be wrong every time. */
    popq %rcx
    .cfi_adjust_cfa_offset -8
    .cfi_register %rip, %rcx
    jmpq *%rcx
    .cfi_endproc
    .size sel_co_switch, .-sel_co_switch

    .type sel_co_switch_slow, @function
sel_co_switch_slow:
    .cfi_startproc
    .cfi_def_cfa_offset 64
    .cfi_offset %rbp, -16
    .cfi_offset %rbx, -24
    .cfi_offset %r12, -32
    .cfi_offset %r13, -40
    .cfi_offset %r14, -48
    .cfi_offset %r15, -56
1:
    ldmxcsr (%rsp)
    fldcw 4(%rsp)
    jmp 2b
    .cfi_endproc
    .size sel_co_switch_slow, .-sel_co_switch_slow

    .globl sel_co_entry
    .hidden sel_co_entry
    .type sel_co_entry, @function
    .p2align 4
sel_co_entry:
    .cfi_startproc
    .cfi_undefined %rip
    movq %r12, %rdi
    callq sel_co_main
    ud2
    .cfi_endproc
    .size sel_co_entry, .-sel_co_entry

#elif defined(__aarch64__)

    .text
    .globl sel_co_switch
    .hidden sel_co_switch
    .type sel_co_switch, %function
    .p2align 4
sel_co_switch:
    .cfi_startproc
    sub sp, sp, #176
    .cfi_adjust_cfa_offset 176
    stp x19, x20, [sp, #0]
    .cfi_rel_offset x19, 0
    .cfi_rel_offset x20, 8
    stp x21, x22, [sp, #16]
    .cfi_rel_offset x21, 16
    .cfi_rel_offset x22, 24
    stp x23, x24, [sp, #32]
    .cfi_rel_offset x23, 32
    .cfi_rel_offset x24, 40
    stp x25, x26, [sp, #48]
    .cfi_rel_offset x25, 48
    .cfi_rel_offset x26, 56
    stp x27, x28, [sp, #64]
    .cfi_rel_offset x27, 64
    .cfi_rel_offset x28, 72
    stp x29, x30, [sp, #80]
    .cfi_rel_offset x29, 80
    .cfi_rel_offset x30, 88
    stp d8, d9, [sp, #96]
    stp d10, d11, [sp, #112]
    stp d12, d13, [sp, #128]
    stp d14, d15, [sp, #144]
    mrs x9, fpcr
    str x9, [sp, #160]
    mov x10, sp
    str x10, [x0]
    mov sp, x1
    ldr x10, [sp, #160]
    cmp x9, x10
    b.eq 1f
    msr fpcr, x10
1:
    ldp x19, x20, [sp, #0]
    ldp x21, x22, [sp, #16]
    ldp x23, x24, [sp, #32]
    ldp x25, x26, [sp, #48]
    ldp x27, x28, [sp, #64]
    ldp x29, x30, [sp, #80]
    ldp d8, d9, [sp, #96]
    ldp d10, d11, [sp, #112]
    ldp d12, d13, [sp, #128]
    ldp d14, d15, [sp, #144]
    add sp, sp, #176
    .cfi_adjust_cfa_offset -176
    ret
    .cfi_endproc
    .size sel_co_switch, .-sel_co_switch

    .globl sel_co_entry
    .hidden sel_co_entry
    .type sel_co_entry, %function
    .p2align 4
sel_co_entry:
    .cfi_startproc
    .cfi_undefined x30
    mov x0, x19
    bl sel_co_main
    brk #0
    .cfi_endproc
    .size sel_co_entry, .-sel_co_entry

#else
#error "coroutines: write sel_co_switch for this processor"
#endif

    .section .note.GNU-stack, "", %progbits
