// Command puppet is the program that the tests of package guest run in a guest:
// it does one small thing that can be seen from outside. It is for these tests
// only.
package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"time"
)

func main() {
	switch os.Args[1] {
	case "echo":
		b, _ := io.ReadAll(os.Stdin)
		fmt.Printf("%s %s %d\n", b, os.Getenv("WORD"), os.Getuid())
		fmt.Fprintln(os.Stderr, "error")
		status, _ := strconv.Atoi(os.Args[2])
		os.Exit(status)
	case "dial":
		c, err := net.Dial("tcp4", os.Args[2])
		if err == nil {
			_, err = io.WriteString(c, "from the guest")
			c.Close()
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	case "sleep":
		time.Sleep(time.Hour)
	}
}
