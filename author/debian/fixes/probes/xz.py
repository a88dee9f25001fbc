import lzma

data = bytes(range(256)) * 4000
packed = {f: lzma.compress(data, format=f) for f in (lzma.FORMAT_XZ, lzma.FORMAT_ALONE)}


# Every decoder of the format before .xz goes through the code.
def probe():
    return "used" if all(lzma.decompress(x, format=f) == data for f, x in packed.items()) else "wrong"
