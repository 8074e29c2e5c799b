// CRC-32 (ISO-HDLC) one bit per clock: a byte on the line takes 40 clocks at least, so eight are plenty.
// A byte is taken while `ready`. With `emit` the byte that comes next of the inverted CRC is shifted out of `value`
// instead; four of those are the CRC, lowest byte first.
module nc_crc32 (
    input  logic        clk,
    input  logic        clear,
    input  logic        valid,
    input  logic        emit,
    input  logic [ 7:0] data,
    output logic        ready,
    output logic [31:0] value
);
  localparam logic [31:0] POLYNOMIAL = 32'hedb88320;

  logic [3:0] left;

  assign ready = left == 4'd0;

  always_ff @(posedge clk) begin
    if (clear) begin
      value <= '1;
      left  <= 4'd0;
    end else if (!ready) begin
      value <= {1'b0, value[31:1]} ^ (value[0] ? POLYNOMIAL : '0);
      left  <= left - 4'd1;
    end else if (valid) begin
      value[7:0] <= emit ? 8'd0 : value[7:0] ^ data;  // zeros feed nothing back: the register just shifts
      left <= 4'd8;
    end
  end
endmodule
