//! Beam's standard URNs and metric labels, byte for byte, and the few of our own.

macro_rules! urns {
    ($($(#[$doc:meta])* pub mod $module:ident { $($name:ident = $urn:literal: $about:literal;)* })*) => {$(
        $(#[$doc])*
        pub mod $module {
            $(#[doc = $about] pub const $name: &str = $urn;)*
        }
    )*};
}

urns! {
    /// Transforms.
    pub mod transform {
        PAR_DO = "beam:transform:pardo:v1": "A function over elements.";
        FLATTEN = "beam:transform:flatten:v1": "Many PCollections into one.";
        GROUP_BY_KEY = "beam:transform:group_by_key:v1": "Values by key and window; always the runner's.";
        IMPULSE = "beam:transform:impulse:v1": "One empty element; always the runner's.";
        ASSIGN_WINDOWS = "beam:transform:window_into:v1": "Gives elements windows.";
        MAP_WINDOWS = "beam:transform:map_windows:v1": "Main input windows to side input windows.";
        MERGE_WINDOWS = "beam:transform:merge_windows:v1": "Merges windows of a key.";
        TO_STRING = "beam:transform:to_string:v1": "Elements as text.";
        TEST_STREAM = "beam:transform:teststream:v1": "Elements and clocks as a test says.";
        READ = "beam:transform:read:v1": "A source of the older kind.";
        COMBINE_PER_KEY = "beam:transform:combine_per_key:v1": "A whole combine: group, then combine values.";
        COMBINE_GLOBALLY = "beam:transform:combine_globally:v1": "A combine of everything.";
        RESHUFFLE = "beam:transform:reshuffle:v1": "Breaks fusion and spreads elements.";
        REDISTRIBUTE_BY_KEY = "beam:transform:redistribute_by_key:v1": "Spreads elements by key.";
        REDISTRIBUTE_ARBITRARILY = "beam:transform:redistribute_arbitrarily:v1": "Spreads elements.";
        COMBINE_PRECOMBINE = "beam:transform:combine_per_key_precombine:v1": "Inputs to accumulators, in part.";
        COMBINE_MERGE_ACCUMULATORS =
            "beam:transform:combine_per_key_merge_accumulators:v1": "Accumulators of a key to one.";
        COMBINE_EXTRACT_OUTPUTS = "beam:transform:combine_per_key_extract_outputs:v1": "An accumulator to its result.";
        COMBINE_CONVERT_TO_ACCUMULATORS =
            "beam:transform:combine_per_key_convert_to_accumulators:v1": "Each input to an accumulator.";
        COMBINE_GROUPED_VALUES = "beam:transform:combine_grouped_values:v1": "All values of a key to their result.";
        SDF_PAIR_WITH_RESTRICTION = "beam:transform:sdf_pair_with_restriction:v1": "First step of a splittable DoFn.";
        SDF_SPLIT_AND_SIZE =
            "beam:transform:sdf_split_and_size_restrictions:v1": "Second step of a splittable DoFn.";
        SDF_PROCESS =
            "beam:transform:sdf_process_sized_element_and_restrictions:v1": "Third step of a splittable DoFn.";
        SDF_TRUNCATE = "beam:transform:sdf_truncate_sized_restrictions:v1": "Shortens restrictions while draining.";
        GROUP_INTO_BATCHES = "beam:transform:group_into_batches:v1": "Values of a key in batches.";
        DATA_SOURCE = "beam:runner:source:v1": "Where a stage's input comes from.";
        DATA_SINK = "beam:runner:sink:v1": "Where a stage's output goes.";
    }
    /// Coders.
    pub mod coder {
        BYTES = "beam:coder:bytes:v1": "Bytes.";
        STRING_UTF8 = "beam:coder:string_utf8:v1": "Text.";
        KV = "beam:coder:kv:v1": "A key and a value.";
        BOOL = "beam:coder:bool:v1": "A truth value.";
        VARINT = "beam:coder:varint:v1": "An integer.";
        DOUBLE = "beam:coder:double:v1": "A float of 64 bits.";
        ITERABLE = "beam:coder:iterable:v1": "Many values.";
        TIMER = "beam:coder:timer:v1": "A timer: key, tag, windows, times.";
        INTERVAL_WINDOW = "beam:coder:interval_window:v1": "A span of event time.";
        LENGTH_PREFIX = "beam:coder:length_prefix:v1": "A length, then another coder's bytes.";
        GLOBAL_WINDOW = "beam:coder:global_window:v1": "The global window, in no bytes.";
        WINDOWED_VALUE = "beam:coder:windowed_value:v1": "Time, windows, pane, element.";
        PARAM_WINDOWED_VALUE =
            "beam:coder:param_windowed_value:v1": "An element; time, windows and pane in the payload.";
        STATE_BACKED_ITERABLE = "beam:coder:state_backed_iterable:v1": "Many values, some on the runner's side.";
        CUSTOM_WINDOW = "beam:coder:custom_window:v1": "A window's last instant and its own encoding.";
        ROW = "beam:coder:row:v1": "A row of a schema.";
        SHARDED_KEY = "beam:coder:sharded_key:v1": "A key with a shard.";
        NULLABLE = "beam:coder:nullable:v1": "A value that may be absent.";
    }
    /// Functions of this project's own, in payloads.
    pub mod own {
        DO_FN = "tiebeam:do_fn:v1": "A step's DoFn; the payload is a StepPayload.";
        COMBINE_FN = "tiebeam:combine_fn:v1": "A step's CombineFn; the payload is a StepPayload.";
        SPREAD_FN = "tiebeam:reshuffle_spread_fn:v1": "First half of a reshuffle; the payload is a StepPayload.";
        GATHER_FN = "tiebeam:reshuffle_gather_fn:v1": "Second half of a reshuffle; the payload is a StepPayload.";
        PASS_FN = "tiebeam:pass_fn:v1": "Passes elements on to a Flatten; the payload is its StepPayload.";
        VIEW_FN = "tiebeam:view_fn:v1": "What a side input becomes; the step knows.";
        WINDOW_MAPPING_FN = "tiebeam:window_mapping_fn:v1": "The payload is the side input's window function.";
    }
    /// Window functions.
    pub mod window_fn {
        GLOBAL = "beam:window_fn:global_windows:v1": "One window.";
        FIXED = "beam:window_fn:fixed_windows:v1": "Windows that touch.";
        SLIDING = "beam:window_fn:sliding_windows:v1": "Windows that overlap.";
        SESSIONS = "beam:window_fn:session_windows:v1": "Windows that end with a silence.";
    }
    /// How side inputs are served.
    pub mod side_input {
        ITERABLE = "beam:side_input:iterable:v1": "All values of a window.";
        MULTIMAP = "beam:side_input:multimap:v1": "Values by key.";
    }
    /// Environments.
    pub mod environment {
        DOCKER = "beam:env:docker:v1": "A container.";
        PROCESS = "beam:env:process:v1": "A command.";
        EXTERNAL = "beam:env:external:v1": "A worker pool.";
        DEFAULT = "beam:env:default:v1": "Whatever the runner has.";
    }
    /// Features of workers and runners.
    pub mod protocol {
        PROGRESS_REPORTING = "beam:protocol:progress_reporting:v1": "Bundles say how far they are.";
        SDK_CONSUMING_RECEIVED_DATA =
            "beam:protocol:sdk_consuming_received_data:v1": "Bundles say whether they wait for input.";
        WORKER_STATUS = "beam:protocol:worker_status:v1": "Workers say what they do.";
        MULTI_CORE_BUNDLE_PROCESSING =
            "beam:protocol:multi_core_bundle_processing:v1": "One worker runs many bundles at a time.";
        HARNESS_MONITORING_INFOS = "beam:protocol:harness_monitoring_infos:v1": "Workers report metrics of their own.";
        CONTROL_REQUEST_ELEMENTS_EMBEDDING =
            "beam:protocol:control_request_elements_embedding:v1": "Input may come with the instruction.";
        CONTROL_RESPONSE_ELEMENTS_EMBEDDING =
            "beam:protocol:control_response_elements_embedding:v1": "Output may come with the answer.";
        STATE_CACHING = "beam:protocol:state_caching:v1": "Workers keep state they read.";
        DATA_SAMPLING = "beam:protocol:data_sampling:v1": "Workers show elements.";
        MONITORING_INFO_SHORT_IDS =
            "beam:protocol:monitoring_info_short_ids:v1": "The runner understands short ids of metrics.";
    }
    /// Features that a pipeline can't do without.
    pub mod requirement {
        STATEFUL = "beam:requirement:pardo:stateful:v1": "State and timers.";
        FINALIZATION = "beam:requirement:pardo:finalization:v1": "Word when a bundle is committed.";
        STABLE_INPUT = "beam:requirement:pardo:stable_input:v1": "The same input when tried again.";
        TIME_SORTED_INPUT = "beam:requirement:pardo:time_sorted_input:v1": "Input in the order of time.";
        SPLITTABLE_DOFN = "beam:requirement:pardo:splittable_dofn:v1": "DoFns whose elements can be split.";
        ON_WINDOW_EXPIRATION = "beam:requirement:pardo:on_window_expiration:v1": "Word when a window ends.";
    }
    /// Artifacts: types and roles.
    pub mod artifact {
        FILE = "beam:artifact:type:file:v1": "A file.";
        URL = "beam:artifact:type:url:v1": "A file to fetch.";
        EMBEDDED = "beam:artifact:type:embedded:v1": "A file within the message.";
        DEFERRED = "beam:artifact:type:deferred:v1": "A file that another service still holds.";
        STAGING_TO = "beam:artifact:role:staging_to:v1": "A file with a name on the worker.";
        GO_WORKER_BINARY = "beam:artifact:role:go_worker_binary:v1": "The program that the worker is.";
    }
    /// Metrics: what they measure.
    pub mod metric {
        USER_SUM_INT64 = "beam:metric:user:sum_int64:v1": "A user's counter.";
        USER_DISTRIBUTION_INT64 = "beam:metric:user:distribution_int64:v1": "A user's distribution.";
        USER_LATEST_INT64 = "beam:metric:user:latest_int64:v1": "A user's gauge.";
        ELEMENT_COUNT = "beam:metric:element_count:v1": "Elements of a PCollection.";
        SAMPLED_BYTE_SIZE = "beam:metric:sampled_byte_size:v1": "Encoded sizes of some elements of a PCollection.";
        TOTAL_MSECS = "beam:metric:ptransform_execution_time:total_msecs:v1": "Time spent in a step.";
        DATA_CHANNEL_READ_INDEX = "beam:metric:data_channel:read_index:v1": "Elements read from a source.";
    }
    /// Metrics: how payloads are written.
    pub mod metric_type {
        SUM_INT64 = "beam:metrics:sum_int64:v1": "A varint.";
        DISTRIBUTION_INT64 = "beam:metrics:distribution_int64:v1": "Count, sum, min and max as varints.";
        LATEST_INT64 = "beam:metrics:latest_int64:v1": "Milliseconds since the epoch and the value, as varints.";
    }
    /// Metrics: of what they are.
    pub mod label {
        PTRANSFORM = "PTRANSFORM": "A transform's id.";
        PCOLLECTION = "PCOLLECTION": "A PCollection's id.";
        NAMESPACE = "NAMESPACE": "The namespace that a user gave.";
        NAME = "NAME": "The name that a user gave.";
    }
}
