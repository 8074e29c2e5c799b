// The event log: a ring of {step, core, neuron}. Records have numbers modulo 2^16 and stay until the host has acknowledged
// them; a full log makes the mesh wait.
module nc_log #(
    parameter int DEPTH = 1024
) (
    input  logic        clk,
    input  logic        clear,
    input  logic        discard,  // take everything, keep nothing
    input  logic        valid,
    input  logic [31:0] record,
    output logic        ready,
    output logic [15:0] written,  // number of the next record
    output logic [15:0] acked,    // number of the oldest record that is kept
    output logic        full,
    output logic        nearly,   // less than a quarter free
    // acknowledging; `holds`: `number` is of a record that is kept, or of the next
    input  logic        ack,
    input  logic [15:0] number,
    output logic        holds,
    // reading, two clocks behind `index`
    input  logic [$clog2(DEPTH)-1:0] index,
    output logic [31:0] value
);
  localparam int AW = $clog2(DEPTH);

  logic [15:0] held, ahead;
  logic [31:0] read;
  logic store;

  assign held = written - acked;
  assign ahead = number - acked;
  assign holds = ahead <= held;
  assign full = held[AW];
  assign nearly = full || held[AW-1-:2] == 2'b11;
  assign ready = !full || discard;
  assign store = valid && !full && !discard;

  nc_ram #(
      .WIDTH(32),
      .DEPTH(DEPTH)
  ) ring (
      .clk(clk),
      .we(store),
      .waddr(written[AW-1:0]),
      .wdata(record),
      .raddr(index),
      .rdata(read)
  );

  always_ff @(posedge clk) begin
    value <= read;
    if (clear) begin
      written <= 16'd0;
      acked   <= 16'd0;
    end else begin
      if (store) written <= written + 16'd1;
      if (ack) acked <= number;
    end
  end
endmodule
