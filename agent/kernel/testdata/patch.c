// SPDX-License-Identifier: GPL-2.0
/*
 * A live patch for tests: /proc/cmdline shows TEXT. Defined before this text:
 * TEXT, and for a sick one INIT (run when it is loaded) or BODY (run by the new
 * function), and OLD for the name of the function that is replaced.
 */
#include <linux/delay.h>
#include <linux/kernel.h>
#include <linux/livepatch.h>
#include <linux/module.h>
#include <linux/seq_file.h>

#ifndef OLD
#define OLD "cmdline_proc_show"
#endif
#ifndef INIT
#define INIT
#endif
#ifndef BODY
#define BODY
#endif
#ifdef MISSING
extern void livemend_is_nowhere(void);
#endif

static int new_show(struct seq_file *m, void *v)
{
	BODY;
#ifdef MISSING
	livemend_is_nowhere();
#endif
	seq_puts(m, TEXT "\n");
	return 0;
}

static struct klp_func funcs[] = { { .old_name = OLD, .new_func = new_show }, { } };
static struct klp_object objects[] = { { .funcs = funcs }, { } };
static struct klp_patch patch = { .mod = THIS_MODULE, .objs = objects, .replace = true };

static int __init patch_init(void)
{
	INIT;
	return klp_enable_patch(&patch);
}

static void __exit patch_exit(void)
{
}

module_init(patch_init);
module_exit(patch_exit);
MODULE_DESCRIPTION("test of live patching");
MODULE_LICENSE("GPL");
MODULE_INFO(livepatch, "Y");
