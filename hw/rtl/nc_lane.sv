// Learning on one bank's weight: what it becomes where it changes.
module nc_lane (
    input  logic       clk,
    input  logic       down,      // depression
    input  logic [8:0] data,      // a byte of the bank, its weight in 7:0
    input  logic [7:0] addend,    // of nc_change
    input  logic       always_below,
    input  logic [7:0] limit,
    input  logic [7:0] bound,     // one clock after the rest
    // two clocks after; the bus has it from `bus_data`
    input  logic       bus_we,
    input  logic [8:0] bus_data,
    output logic [8:0] wdata
);
  logic [7:0] sum;
  logic kept, past;

  // Inverting signs makes an unsigned comparison of a signed one. At the bound either will do.
  always_ff @(posedge clk) begin
    sum  <= addend + data[7:0];
    past <= (always_below || {!data[7], data[6:0]} < limit) == down;
    kept <= data[8];
    wdata <= bus_we ? bus_data : {kept, past ? bound : sum};
  end
endmodule
