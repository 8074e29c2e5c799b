// A block RAM that is written by 32 bits and read by one, one clock behind the address. As in nc_ram, nobody may read what
// is being written.
module nc_bits #(
    parameter int N = 1024,
    parameter int NX = $clog2(N)
) (
    input  logic          clk,
    input  logic          we,
    input  logic [NX-6:0] waddr,
    input  logic [  31:0] wdata,
    input  logic [NX-1:0] raddr,
    output logic          rdata
);
  (* ram_style = "block", no_rw_check *) logic mem[N];

`ifndef SYNTHESIS
  // and so not always_ff below: what it writes may have no other writer
  initial for (int i = 0; i < N; i++) mem[i] = 1'b0;
`endif

  always @(posedge clk) if (we) for (int i = 0; i < 32; i++) mem[{waddr, 5'(i)}] <= wdata[i];
  always_ff @(posedge clk) rdata <= mem[raddr];
endmodule
