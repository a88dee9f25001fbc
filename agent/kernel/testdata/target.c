// SPDX-License-Identifier: GPL-2.0
/*
 * A module to patch. Whoever reads /proc/livemend_d sleeps in show_d and cannot
 * be woken by a signal; whoever reads /proc/livemend_s sleeps in show_s and can.
 * Writing 1 to the parameter "go" ends all sleep.
 */
#include <linux/module.h>
#include <linux/proc_fs.h>
#include <linux/seq_file.h>
#include <linux/wait.h>

static DECLARE_WAIT_QUEUE_HEAD(queue);
static bool released;

static int release(const char *value, const struct kernel_param *kp)
{
	int err = param_set_bool(value, kp);

	wake_up_all(&queue);
	return err;
}

static const struct kernel_param_ops release_ops = { .set = release, .get = param_get_bool };
module_param_cb(go, &release_ops, &released, 0644);

void livemend_sleep(void);
void livemend_sleep(void)
{
	wait_event(queue, READ_ONCE(released));
}
EXPORT_SYMBOL_GPL(livemend_sleep);

static noinline int show_d(struct seq_file *m, void *v)
{
	livemend_sleep();
	seq_puts(m, "old\n");
	return 0;
}

static noinline int show_s(struct seq_file *m, void *v)
{
	if (wait_event_interruptible(queue, READ_ONCE(released)))
		return -ERESTARTSYS;
	seq_puts(m, "old\n");
	return 0;
}

static int __init target_init(void)
{
	if (!proc_create_single("livemend_d", 0444, NULL, show_d))
		return -ENOMEM;
	if (!proc_create_single("livemend_s", 0444, NULL, show_s)) {
		remove_proc_entry("livemend_d", NULL);
		return -ENOMEM;
	}
	return 0;
}

static void __exit target_exit(void)
{
	remove_proc_entry("livemend_s", NULL);
	remove_proc_entry("livemend_d", NULL);
}

module_init(target_init);
module_exit(target_exit);
MODULE_DESCRIPTION("test of live patching");
MODULE_LICENSE("GPL");
