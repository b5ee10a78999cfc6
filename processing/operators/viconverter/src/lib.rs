//! What a video indexer detected, as rows of a table: one for each instance of each detection.
//!
//! Behaviour: AIO.md §3, "viconverter". What it cannot read is the end of it: it has no other way to complain.

mod map {
    use measurement::{count_request, log_configuration};
    use serde::{Deserialize, Serialize};
    use serde_json::Value;
    use wasm_graph_sdk::macros::map_operator;

    const NAME: &str = "module-viconverter/map";

    fn start(configuration: ModuleConfiguration) -> bool {
        log_configuration(NAME, &configuration);
        true
    }

    // Values that are only passed on keep the form in which they came.

    #[derive(Deserialize)]
    struct Frame {
        id: usize,
        height: Value,
        width: Value,
        #[serde(default)]
        detections: Vec<Detection>,
    }

    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Detection {
        #[serde(rename = "Id")]
        id: Value,
        insight_name: Value,
        model_type: Value,
        instances: Vec<Seen>,
    }

    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Seen {
        x: Value,
        y: Value,
        width: Value,
        height: Value,
        start: Value,
        end: Value,
        start_time: Value,
        end_time: Value,
        confidence: Value,
    }

    #[derive(Serialize)]
    struct Row<'a> {
        id: usize,
        frame_width: &'a Value,
        frame_height: &'a Value,
        detection_id: &'a Value,
        insight_name: &'a Value,
        model_type: &'a Value,
        x: &'a Value,
        y: &'a Value,
        width: &'a Value,
        height: &'a Value,
        start: &'a Value,
        end: &'a Value,
        start_time: &'a Value,
        end_time: &'a Value,
        confidence: &'a Value,
    }

    fn rows(frame: &Frame) -> Vec<Row<'_>> {
        let of = |detection| Detection::rows(detection, frame);
        frame.detections.iter().flat_map(of).collect()
    }

    impl Detection {
        fn rows<'a>(&'a self, frame: &'a Frame) -> impl Iterator<Item = Row<'a>> {
            self.instances.iter().map(|seen| Row {
                id: frame.id,
                frame_width: &frame.width,
                frame_height: &frame.height,
                detection_id: &self.id,
                insight_name: &self.insight_name,
                model_type: &self.model_type,
                x: &seen.x,
                y: &seen.y,
                width: &seen.width,
                height: &seen.height,
                start: &seen.start,
                end: &seen.end,
                start_time: &seen.start_time,
                end_time: &seen.end_time,
                confidence: &seen.confidence,
            })
        }
    }

    #[map_operator(init = "start")]
    fn flatten(input: DataModel) -> Result<DataModel, Error> {
        count_request(NAME, None);
        let DataModel::Message(mut message) = input else { panic!("only messages are converted") };
        let frame: Frame = serde_json::from_slice(&message.payload.read()).expect("detections as JSON");
        message.payload = serde_json::to_vec(&rows(&frame)).expect("what was JSON is JSON").into();
        Ok(DataModel::Message(message))
    }
}
