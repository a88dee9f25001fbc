print("ready", flush=True)
for line in sys.stdin:
    try:
        print(probe(), flush=True)
    except BaseException as problem:
        print("failed:", repr(problem), flush=True)
