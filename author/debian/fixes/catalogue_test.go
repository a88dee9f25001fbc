package fixes_test

import "livemend.dev/livemend/author/refusal"

// fix is one change of a source package, and what must become of it.
type fix struct {
	name    string // identifier of the vulnerability
	set     string // package and versions, see sets
	patches []string

	refused   refusal.Kind // why there must be no patch
	functions []string     // that the patch must replace or add, and no others

	// A program that has the library loaded tells the difference, or goes through
	// the new code of a function (reach) where only that is safe.
	probe []string // files in probes, one behind the other
	reach string
	env   string

	quick bool // builds fast enough for every run of the tests
}

// set is a source package in two versions.
type set struct{ pkg, from, to, library string }

var sets = map[string]set{
	"curl":       {"curl", "7.88.1-10+deb12u5", "7.88.1-10+deb12u15", "libcurl.so.4"},
	"expat-1":    {"expat", "2.5.0-1", "2.5.0-1+deb12u2", "libexpat.so.1"},
	"expat":      {"expat", "2.5.0-1+deb12u1", "2.5.0-1+deb12u2", "libexpat.so.1"},
	"libarchive": {"libarchive", "3.6.2-1+deb12u4", "3.6.2-1+deb12u5", "libarchive.so.13"},
	"libcap2":    {"libcap2", "1:2.66-4+deb12u2", "1:2.66-4+deb12u3", "libcap.so.2"},
	"libevent":   {"libevent", "2.1.12-stable-8", "2.1.12-stable-8+deb12u1", "libevent-2.1.so.7"},
	"libpng-3":   {"libpng1.6", "1.6.39-2+deb12u3", "1.6.39-2+deb12u5", "libpng16.so.16"},
	"libpng":     {"libpng1.6", "1.6.39-2+deb12u4", "1.6.39-2+deb12u5", "libpng16.so.16"},
	"libtasn1-6": {"libtasn1-6", "4.19.0-2", "4.19.0-2+deb12u1", "libtasn1.so.6"},
	"libxml2":    {"libxml2", "2.9.14+dfsg-1.3~deb12u4", "2.9.14+dfsg-1.3~deb12u6", "libxml2.so.2"},
	"libxslt":    {"libxslt", "1.1.35-1+deb12u3", "1.1.35-1+deb12u4", "libxslt.so.1"},
	"xz":         {"xz-utils", "5.4.1-1+deb12u1", "5.4.1-1+deb12u2", "liblzma.so.5"},
}

// catalogue is sorted by name of the set.
var catalogue = []fix{
	{name: "CVE-2024-8096", set: "curl", patches: []string{"CVE-2024-8096.patch"}, refused: refusal.Nothing},
	{name: "CVE-2025-10148", set: "curl", patches: []string{"CVE-2025-10148.patch"}, refused: refusal.Nothing},
	{name: "CVE-2025-14524", set: "curl", patches: []string{"CVE-2025-14524.patch"},
		functions: []string{"Curl_sasl_continue", "Curl_sasl_start"}, probe: []string{"curl_sasl.py"}},
	{name: "CVE-2026-3783", set: "curl", patches: []string{"CVE-2026-3783.patch"},
		functions: []string{"output_auth_headers"}, probe: []string{"curl_bearer.py"}},
	{name: "CVE-2026-3784", set: "curl", patches: []string{"CVE-2026-3784.patch"},
		functions: []string{"Curl_connect", "proxy_info_matches"}, probe: []string{"curl_url.py"}, reach: "Curl_connect"},

	{name: "CVE-2024-50602", set: "expat", patches: []string{"expat-2.5.0-CVE-2024-50602.patch"},
		functions: []string{"XML_ErrorString", "XML_StopParser"}, probe: []string{"expat_stop.py"}, quick: true},
	{name: "CVE-2023-52425", set: "expat", patches: []string{"expat-2.5.0-CVE-2023-52425.patch"}, refused: refusal.Layout},
	{name: "CVE-2024-8176", set: "expat", patches: []string{"expat-2.5.0-CVE-2024-8176.patch"}, refused: refusal.Layout},
	{name: "2.5.0-1+deb12u2 (all fixes)", set: "expat", refused: refusal.Layout},
	{name: "CVE-2024-45490", set: "expat-1", patches: []string{"CVE-2024-45490.patch"},
		functions: []string{"XML_ParseBuffer"}, probe: []string{"expat_length.py"}},
	{name: "CVE-2024-45491", set: "expat-1", patches: []string{"CVE-2024-45491.patch"}, refused: refusal.Nothing},
	{name: "CVE-2024-45492", set: "expat-1", patches: []string{"CVE-2024-45492.patch"}, refused: refusal.Nothing},

	{name: "CVE-2026-14164", set: "libarchive", patches: []string{"CVE-2026-14164.patch"},
		functions: []string{"rar5_read_data"}, probe: []string{"libarchive_rar.py"}, reach: "rar5_read_data"},
	{name: "CVE-2026-15028", set: "libarchive", patches: []string{"CVE-2026-15028.patch"},
		functions: []string{"tar_atol_base_n"}, probe: []string{"libarchive_tar.py"}, reach: "tar_atol_base_n"},
	{name: "CVE-2026-16517", set: "libarchive", patches: []string{"CVE-2026-16517.patch"},
		functions: []string{"archive_write_zip_header"}, probe: []string{"libarchive_zip.py"}},

	{name: "CVE-2026-4878", set: "libcap2", patches: []string{"Address-a-potential-TOCTOU-race-condition-in-cap_set_file.patch"},
		functions: []string{"cap_set_file"}, probe: []string{"libcap_set.py"}, reach: "cap_set_file"},

	{name: "CVE-2026-63379", set: "libevent", patches: []string{"CVE-2026-63379.patch"},
		functions: []string{"evhttp_check_transfer_encoding_", "evhttp_get_body", "evhttp_parse_headers_", "evhttp_parse_headers_impl_",
			"evhttp_read_header", "evhttp_read_trailer", "evhttp_str_is_chunked_"}, // with CVE-2026-63382, which it needs
		probe: []string{"libevent_http.py", "libevent_trailer.py"}},
	{name: "CVE-2026-63381", set: "libevent", patches: []string{"CVE-2026-63381.patch"},
		functions: []string{"evbuffer_add_buffer_reference"}, probe: []string{"libevent_reference.py"}, reach: "evbuffer_add_buffer_reference"},
	{name: "CVE-2026-63382", set: "libevent", patches: []string{"CVE-2026-63382.patch"},
		functions: []string{"evhttp_check_transfer_encoding_", "evhttp_get_body", "evhttp_read_header", "evhttp_str_is_chunked_"},
		probe:     []string{"libevent_http.py", "libevent_smuggle.py"}},
	{name: "CVE-2026-63383", set: "libevent", patches: []string{"CVE-2026-63383.patch"},
		functions: []string{"decode_tag_internal"}, probe: []string{"libevent_tag.py"}, reach: "decode_tag_internal"},
	{name: "CVE-2026-63384", set: "libevent", patches: []string{"CVE-2026-63384.patch"},
		functions: []string{"evtag_unmarshal_header"}, probe: []string{"libevent_length.py"}},
	{name: "CVE-2026-63385", set: "libevent", patches: []string{"CVE-2026-63385.patch"},
		functions: []string{"evhttp_add_header"}, probe: []string{"libevent_header.py"}, quick: true},
	{name: "CVE-2026-63388", set: "libevent", patches: []string{"CVE-2026-63388.patch"}, refused: refusal.Layout},
	{name: "2.1.12-stable-8+deb12u1 (all fixes)", set: "libevent", refused: refusal.Layout},

	{name: "CVE-2026-33416", set: "libpng-3", patches: []string{"CVE-2026-33416-part1.patch", "CVE-2026-33416-part2.patch", "CVE-2026-33416-part3.patch", "CVE-2026-33416-part4.patch"},
		refused: refusal.Ownership},
	{name: "CVE-2026-33636", set: "libpng-3", patches: []string{"CVE-2026-33636.patch"}, refused: refusal.Nothing},
	{name: "CVE-2026-34757", set: "libpng", patches: []string{"CVE-2026-34757-part1.patch", "CVE-2026-34757-part2.patch"},
		functions: []string{"png_set_PLTE", "png_set_hIST", "png_set_sPLT", "png_set_tRNS", "png_set_text_2", "png_set_unknown_chunks"},
		probe:     []string{"libpng_palette.py"}, env: "MALLOC_PERTURB_=165"},

	{name: "CVE-2024-12133", set: "libtasn1-6", patches: []string{"0001-asn1_der_decoding2-optimize-_asn1_find_up-call-with-.patch", "0002-asn1_find_node-optimize-NUMBER-node-lookup-with-inde.patch"},
		refused: refusal.Layout},

	{name: "CVE-2025-8732", set: "libxml2", patches: []string{"CVE-2025-8732.patch"},
		functions: []string{"xmlExpandCatalog", "xmlLoadACatalog__internal_alias", "xmlLoadCatalog__internal_alias", "xmlLoadSGMLSuperCatalog__internal_alias", "xmlParseSGMLCatalog"}, probe: []string{"libxml2_sgml.py"}},
	{name: "CVE-2025-9714", set: "libxml2", patches: []string{"CVE-2025-9714.patch"},
		functions: []string{"xmlXPathCompiledEvalInternal", "xmlXPathCtxtCompile__internal_alias", "xmlXPathEvalExpr__internal_alias", "xmlXPathEval__internal_alias", "xmlXPathTryStreamCompile"},
		probe:     []string{"libxml2_xpath.py"}, reach: "xmlXPathEval__internal_alias"},
	{name: "CVE-2026-0989", set: "libxml2", patches: []string{"CVE-2026-0989.patch"}, refused: refusal.Layout},
	{name: "CVE-2026-0990", set: "libxml2", patches: []string{"CVE-2026-0990.patch"},
		functions: []string{"xmlCatalogListXMLResolveURI"}, probe: []string{"libxml2_resolve.py"}},
	{name: "CVE-2026-0992", set: "libxml2", patches: []string{"CVE-2026-0992/01-4af23b523.patch", "CVE-2026-0992/02-096402c94.patch"},
		functions: []string{"xmlParseXMLCatalogNode"}, probe: []string{"libxml2_repeated.py"}},
	{name: "CVE-2026-1757", set: "libxml2", patches: []string{"CVE-2026-1757.patch"},
		functions: []string{"xmlShell__internal_alias"}, probe: []string{"libxml2_shell.py"}},
	{name: "2.9.14+dfsg-1.3~deb12u6 (all fixes)", set: "libxml2", refused: refusal.Ownership},

	{name: "1.1.35-1+deb12u4 (all fixes)", set: "libxslt", refused: refusal.Layout},

	{name: "5.4.1-1+deb12u2 (three fixes)", set: "xz",
		functions: []string{"alone_decode", "lzip_decode", "lzma_lz_decoder_init", "microlzma_decode", "stream_decode_mt"},
		probe:     []string{"xz.py"}, reach: "alone_decode"},
}
