/* switch.h for aarch64 (AAPCS64: Linux and macOS). */
#ifdef __APPLE__
#  define SYMBOL(name) _##name
#  define HIDDEN(name) .private_extern _##name
#  define TYPE(name)
#  define SIZE(name)
#else
#  define SYMBOL(name) name
#  define HIDDEN(name) .hidden name
#  define TYPE(name) .type name, %function
#  define SIZE(name) .size name, . - name
#endif

        .text
        .p2align 4
        .globl  SYMBOL(gofer_switch_call)
        HIDDEN(gofer_switch_call)
        TYPE(gofer_switch_call)
SYMBOL(gofer_switch_call):              /* x0 arg, x1 aux, x2 fn */
        .cfi_startproc
        sub     sp, sp, #176
        stp     x19, x20, [sp, #0]
        stp     x21, x22, [sp, #16]
        stp     x23, x24, [sp, #32]
        stp     x25, x26, [sp, #48]
        stp     x27, x28, [sp, #64]
        stp     x29, x30, [sp, #80]
        stp     d8,  d9,  [sp, #96]
        stp     d10, d11, [sp, #112]
        stp     d12, d13, [sp, #128]
        stp     d14, d15, [sp, #144]
        mrs     x9, fpcr
        str     x9, [sp, #160]
        mov     x9, x1
        mov     x1, sp
        mov     sp, x9
        .cfi_undefined x30
        blr     x2
        mov     sp, x0
        ldr     x9, [sp, #160]
        msr     fpcr, x9
        ldp     x19, x20, [sp, #0]
        ldp     x21, x22, [sp, #16]
        ldp     x23, x24, [sp, #32]
        ldp     x25, x26, [sp, #48]
        ldp     x27, x28, [sp, #64]
        ldp     x29, x30, [sp, #80]
        ldp     d8,  d9,  [sp, #96]
        ldp     d10, d11, [sp, #112]
        ldp     d12, d13, [sp, #128]
        ldp     d14, d15, [sp, #144]
        add     sp, sp, #176
        ret
        .cfi_endproc
        SIZE(gofer_switch_call)

        .p2align 4
        .globl  SYMBOL(gofer_switch_enter)
        HIDDEN(gofer_switch_enter)
        TYPE(gofer_switch_enter)
SYMBOL(gofer_switch_enter):
        .cfi_startproc
        .cfi_undefined x30
        blr     x19
        brk     #1
        .cfi_endproc
        SIZE(gofer_switch_enter)

#if defined(__linux__)
        .section .note.GNU-stack, "", %progbits
#endif
