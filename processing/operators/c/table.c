/* A filter that grows its table by as many elements as the property `elements` says, with each message, and passes a
 * message when the table has grown. For tests of what the host does about it. */
#include <stdlib.h>
#include <string.h>

#include "filter_impl.h"

/* Tables of functions can be grown in assembly only; others would need a host with a garbage collector. */
__asm__(".tabletype grown, funcref\n"
        "grown:\n");

static bool grow(size_t by) {
    int before;
    __asm__ volatile("ref.null_func\n"
                     "local.get %1\n"
                     "table.grow grown\n"
                     "local.set %0"
                     : "=r"(before)
                     : "r"(by));
    return before != -1;
}

static size_t elements;

bool exports_wasm_graph_processor_filter_init(
    exports_wasm_graph_processor_filter_module_configuration_t *configuration) {
    for (size_t i = 0; i < configuration->properties.len; i++) {
        filter_impl_tuple2_string_string_t *property = &configuration->properties.ptr[i];
        if (property->f0.len != strlen("elements") || memcmp(property->f0.ptr, "elements", property->f0.len) != 0) continue;
        for (size_t at = 0; at < property->f1.len; at++) elements = elements * 10 + (property->f1.ptr[at] - '0');
    }
    exports_wasm_graph_processor_filter_module_configuration_free(configuration);
    return elements > 0;
}

bool exports_wasm_graph_processor_filter_process(
    exports_wasm_graph_processor_filter_data_model_t *message, bool *ret,
    exports_wasm_graph_processor_filter_error_t *err) {
    (void)err;
    *ret = grow(elements);
    exports_wasm_graph_processor_filter_data_model_free(message);
    return true;
}
