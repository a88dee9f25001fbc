# The palette that png_get_PLTE gives out, given back to png_set_PLTE. It runs
# under MALLOC_PERTURB_, which fills freed memory.
def probe():
    png = pointer("png_create_read_struct", b"1.6.39", None, None, None)
    info = pointer("png_create_info_struct", p(png))
    colours = bytes(range(1, 4)) * 256
    lib.png_set_PLTE(p(png), p(info), colours, 256)
    palette, count = ctypes.c_void_p(), ctypes.c_int()
    lib.png_get_PLTE(p(png), p(info), ctypes.byref(palette), ctypes.byref(count))
    lib.png_set_PLTE(p(png), p(info), palette, count)
    lib.png_get_PLTE(p(png), p(info), ctypes.byref(palette), ctypes.byref(count))
    kept = ctypes.string_at(palette, 3 * count.value) == colours
    png, info = ctypes.c_void_p(png), ctypes.c_void_p(info)
    lib.png_destroy_read_struct(ctypes.byref(png), ctypes.byref(info), None)
    return "fixed" if kept else "vulnerable"
