// SPDX-License-Identifier: GPL-2.0
/*
 * A live patch of the module in target.c. Defined before this text: OLD, the
 * function that is replaced; SLEEP when the new one sleeps too.
 */
#include <linux/livepatch.h>
#include <linux/module.h>
#include <linux/seq_file.h>

#ifdef SLEEP
extern void livemend_sleep(void);
#endif

static noinline int new_show(struct seq_file *m, void *v)
{
#ifdef SLEEP
	void (*sleep)(void) = symbol_get(livemend_sleep);

	if (sleep) {
		sleep();
		symbol_put(livemend_sleep);
	}
#endif
	seq_puts(m, "new\n");
	return 0;
}

static struct klp_func funcs[] = { { .old_name = OLD, .new_func = new_show }, { } };
static struct klp_object objects[] = { { .name = "livemend_target", .funcs = funcs }, { } };
static struct klp_patch patch = { .mod = THIS_MODULE, .objs = objects, .replace = true };

static int __init patch_init(void)
{
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
