/* A filter in C, by plain wit-bindgen: passes the messages whose topic ends with a level of this name.
 *
 * The property `level` names it; without one, init refuses. Payloads are never read, so that they cost nothing. */
#include <stdlib.h>
#include <string.h>

#include "filter_impl.h"

#define MODULE "module-c/filter"

static char *level;
static size_t level_len;

static void say(wasm_graph_processor_logger_level_t how, const char *what) {
    filter_impl_string_t module, text;
    filter_impl_string_set(&module, MODULE);
    filter_impl_string_set(&text, what);
    wasm_graph_processor_logger_log(how, &module, &text);
}

bool exports_wasm_graph_processor_filter_init(
    exports_wasm_graph_processor_filter_module_configuration_t *configuration) {
    for (size_t i = 0; i < configuration->properties.len; i++) {
        filter_impl_tuple2_string_string_t *property = &configuration->properties.ptr[i];
        if (property->f0.len != strlen("level") || memcmp(property->f0.ptr, "level", property->f0.len) != 0) continue;
        if (property->f1.len == 0 || (level = malloc(property->f1.len)) == NULL) break;
        level_len = property->f1.len;
        memcpy(level, property->f1.ptr, level_len);
    }
    exports_wasm_graph_processor_filter_module_configuration_free(configuration);
    if (level == NULL) say(WASM_GRAPH_PROCESSOR_LOGGER_LEVEL_ERROR, "the property `level` is missing");
    return level != NULL;
}

static bool ends_with_level(const uint8_t *topic, size_t len) {
    if (len < level_len || memcmp(topic + len - level_len, level, level_len) != 0) return false;
    return len == level_len || topic[len - level_len - 1] == '/';
}

bool exports_wasm_graph_processor_filter_process(
    exports_wasm_graph_processor_filter_data_model_t *message, bool *ret,
    exports_wasm_graph_processor_filter_error_t *err) {
    bool right = message->tag == WASM_GRAPH_PROCESSOR_TYPES_DATA_MODEL_MESSAGE;
    if (right) {
        wasm_graph_processor_types_buffer_or_bytes_t *topic = &message->val.message.topic;
        if (topic->tag == WASM_GRAPH_PROCESSOR_TYPES_BUFFER_OR_BYTES_BUFFER) {
            filter_impl_list_u8_t bytes;
            wasm_graph_processor_types_method_buffer_read(
                wasm_graph_processor_types_borrow_buffer(topic->val.buffer), &bytes);
            *ret = ends_with_level(bytes.ptr, bytes.len);
            filter_impl_list_u8_free(&bytes);
        } else {
            *ret = ends_with_level(topic->val.bytes.ptr, topic->val.bytes.len);
        }
    } else {
        filter_impl_string_dup(&err->message, "only messages here");
    }
    exports_wasm_graph_processor_filter_data_model_free(message);
    return right;
}
