import java.nio.file.Path;
import org.apache.beam.model.pipeline.v1.ExternalTransforms.SchemaTransformPayload;
import org.apache.beam.sdk.Pipeline;
import org.apache.beam.sdk.PipelineResult.State;
import org.apache.beam.sdk.coders.RowCoder;
import org.apache.beam.sdk.io.TextIO;
import org.apache.beam.sdk.options.PipelineOptions;
import org.apache.beam.sdk.options.PipelineOptionsFactory;
import org.apache.beam.sdk.options.PortablePipelineOptions;
import org.apache.beam.sdk.schemas.Schema;
import org.apache.beam.sdk.schemas.Schema.FieldType;
import org.apache.beam.sdk.schemas.SchemaTranslation;
import org.apache.beam.sdk.transforms.Create;
import org.apache.beam.sdk.transforms.MapElements;
import org.apache.beam.sdk.util.CoderUtils;
import org.apache.beam.sdk.util.construction.External;
import org.apache.beam.sdk.values.PCollection;
import org.apache.beam.sdk.values.Row;
import org.apache.beam.sdk.values.TypeDescriptors;
import org.apache.beam.vendor.grpc.v1p60p1.com.google.protobuf.ByteString;

/**
 * A Java pipeline whose model runs in Rust: rows through the `tiebeam` command's expansion service, and typed rows back.
 *
 * <pre>java RunInference EXPANSION-HOST:PORT JOB-HOST:PORT OUTPUT-PREFIX</pre>
 */
public class RunInference {
  private static final String IDENTIFIER = "beam:schematransform:org.apache.beam:tiebeam_run_inference:v1";

  public static void main(String[] args) {
    // The workers' threads would keep the process up.
    try {
      System.exit(run(args) == State.DONE ? 0 : 1);
    } catch (Exception error) {
      error.printStackTrace();
      System.exit(1);
    }
  }

  private static State run(String[] args) throws Exception {
    PipelineOptions options =
        PipelineOptionsFactory.fromArgs("--runner=PortableRunner", "--jobEndpoint=" + args[1])
            .as(PortablePipelineOptions.class);
    Workers.start(options);
    Pipeline pipeline = Pipeline.create(options);
    Schema cell = Schema.builder().addStringField("name").addDoubleField("value").build();
    PCollection<Row> cells =
        pipeline.apply(
            Create.of(row(cell, "twenty", 20.0), row(cell, "thirty", 30.0), row(cell, "forty", 40.0))
                .withRowSchema(cell));
    PCollection<Row> answers =
        cells.apply("Five", External.<PCollection<Row>, Row>of(urn(), payload(handler()), args[0]));
    answers
        .apply(
            "Lines",
            MapElements.into(TypeDescriptors.strings())
                // Typed: a field that was not there, or of another type, would fail here.
                .via(
                    row ->
                        String.format(
                            "%s: %.0f -> %.0f",
                            row.getString("name"), row.getDouble("value"), row.getFloat("inference"))))
        .apply(TextIO.write().to(args[2]));
    return pipeline.run().waitUntilFinish();
  }

  private static String urn() {
    return "beam:expansion:payload:schematransform:v1";
  }

  private static Row row(Schema schema, Object... values) {
    return Row.withSchema(schema).addValues(values).build();
  }

  /** The configuration of a pipeline file's RunInference. */
  private static Row handler() {
    Schema params = Schema.builder().addInt64Field("input_dim").addInt64Field("output_dim").build();
    Schema inputs = Schema.builder().addStringField("x").build();
    Schema config =
        Schema.builder()
            .addStringField("state_dict_path")
            .addStringField("model_class")
            .addRowField("model_params", params)
            .addRowField("inputs", inputs)
            .build();
    Schema handler = Schema.builder().addStringField("type").addRowField("config", config).build();
    Schema whole = Schema.builder().addRowField("model_handler", handler).build();
    String path = Path.of("fixtures/models/five.pth").toAbsolutePath().toString();
    Row made = row(config, path, "LinearRegression", row(params, 1L, 1L), row(inputs, "value"));
    return row(whole, row(handler, "PytorchModelHandlerTensor", made));
  }

  private static byte[] payload(Row config) throws Exception {
    byte[] bytes = CoderUtils.encodeToByteArray(RowCoder.of(config.getSchema()), config);
    return SchemaTransformPayload.newBuilder()
        .setIdentifier(IDENTIFIER)
        .setConfigurationSchema(SchemaTranslation.schemaToProto(config.getSchema(), true))
        .setConfigurationRow(ByteString.copyFrom(bytes))
        .build()
        .toByteArray();
  }
}
