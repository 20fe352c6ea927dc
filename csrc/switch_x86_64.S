/* switch.h for x86-64 (System V: Linux and macOS). */
#ifdef __APPLE__
#  define SYMBOL(name) _##name
#  define HIDDEN(name) .private_extern _##name
#  define TYPE(name)
#  define SIZE(name)
#else
#  define SYMBOL(name) name
#  define HIDDEN(name) .hidden name
#  define TYPE(name) .type name, @function
#  define SIZE(name) .size name, . - name
#endif

        .text
        .p2align 4
        .globl  SYMBOL(gofer_switch_call)
        HIDDEN(gofer_switch_call)
        TYPE(gofer_switch_call)
SYMBOL(gofer_switch_call):              /* rdi arg, rsi aux, rdx fn */
        .cfi_startproc
        pushq   %rbp
        pushq   %rbx
        pushq   %r12
        pushq   %r13
        pushq   %r14
        pushq   %r15
        subq    $8, %rsp
        stmxcsr (%rsp)
        fnstcw  4(%rsp)
        movq    %rsi, %rax
        movq    %rsp, %rsi
        movq    %rax, %rsp
        .cfi_undefined rip
        call    *%rdx
        movq    %rax, %rsp
        ldmxcsr (%rsp)
        fldcw   4(%rsp)
        addq    $8, %rsp
        popq    %r15
        popq    %r14
        popq    %r13
        popq    %r12
        popq    %rbx
        popq    %rbp
        ret
        .cfi_endproc
        SIZE(gofer_switch_call)

        .p2align 4
        .globl  SYMBOL(gofer_switch_enter)
        HIDDEN(gofer_switch_enter)
        TYPE(gofer_switch_enter)
SYMBOL(gofer_switch_enter):
        .cfi_startproc
        .cfi_undefined rip
        call    *%rbx
        ud2
        .cfi_endproc
        SIZE(gofer_switch_enter)

#if defined(__linux__)
        .section .note.GNU-stack, "", @progbits
#endif
