// The pending memory: 16 slots of one bit per axon. Four sources set bits, one a clock; the scan of a slot takes words.
// A word is read, and written in the next clock, so the word that is just being written is forwarded.
module nc_pending #(
    parameter int A  = 2048,
    parameter int AX = $clog2(A),
    parameter int PW = AX - 1      // 16 slots of A / 32 words
) (
    input  logic          clk,
    input  logic          rst,
    // the scan: always served
    input  logic          take_valid,
    input  logic          take_clear,
    input  logic [PW-1:0] take_addr,
    output logic          take_rvalid,
    output logic [  31:0] word,          // also what the bus reads
    // bits to set: {slot, axon}
    input  logic          delay_valid,
    input  logic [AX+3:0] delay_bit,
    output logic          delay_ready,
    input  logic          local_valid,
    input  logic [AX+3:0] local_bit,
    output logic          local_ready,
    input  logic          mesh_valid,
    input  logic [AX+3:0] mesh_bit,
    output logic          mesh_ready,
    input  logic          inject_valid,
    input  logic [AX+3:0] inject_bit,    // while nothing else comes
    output logic          working,
    // host
    input  logic          bus_active,
    input  logic [PW-1:0] bus_addr,
    input  logic          bus_we,
    input  logic [  31:0] bus_wdata
);
  logic host, host_we;
  logic [PW-1:0] host_addr;
  logic [31:0] host_wdata;
  nc_near #(.WIDTH(PW + 34)) bus (
      .clk, .d({bus_active, bus_we, bus_addr, bus_wdata}), .q({host, host_we, host_addr, host_wdata})
  );

  // p0: the request; p1: the word is there and goes back changed
  logic p0_set, p0_take, p0_clear, p1_set, p1_take, p1_clear, p1_write, again;
  logic [PW-1:0] p0_addr, p1_addr;
  logic [4:0] p0_bit, p1_bit;
  logic [31:0] read, newest, last;
  logic [7:0] low;
  logic [3:0] high;

  // what comes waits in registers here
  logic delay_waits, local_waits, mesh_waits;
  logic [AX+3:0] the_delay, the_local, the_mesh;
  nc_pair #(.WIDTH(AX + 4)) from_local (
      .clk, .rst, .valid(local_valid), .wdata(local_bit), .ready(local_ready),
      .have(local_waits), .rdata(the_local), .take(!take_valid && !delay_waits)
  );
  nc_pair #(.WIDTH(AX + 4)) from_mesh (
      .clk, .rst, .valid(mesh_valid), .wdata(mesh_bit), .ready(mesh_ready),
      .have(mesh_waits), .rdata(the_mesh), .take(!take_valid && !delay_waits && !local_waits)
  );
  assign delay_ready = !delay_waits;

  always_ff @(posedge clk) begin
    if (!delay_waits) the_delay <= delay_bit;
    delay_waits <= delay_waits ? take_valid : delay_valid;
    p0_take  <= take_valid;
    p0_clear <= take_valid && take_clear;
    p0_set   <= !take_valid && (delay_waits || local_waits || mesh_waits || inject_valid);
    if (take_valid) {p0_addr, p0_bit} <= {take_addr, 5'd0};
    else if (delay_waits) {p0_addr, p0_bit} <= the_delay;
    else if (local_waits) {p0_addr, p0_bit} <= the_local;
    else if (mesh_waits) {p0_addr, p0_bit} <= the_mesh;
    else {p0_addr, p0_bit} <= inject_bit;

    {p1_take, p1_clear, p1_set, p1_addr, p1_bit} <= {p0_take, p0_clear, p0_set, p0_addr, p0_bit};
    again <= p1_write && p1_addr == p0_addr;
    last <= newest;
    word <= read;
    take_rvalid <= p1_take;
    if (rst) begin
      {p0_take, p0_clear, p0_set} <= '0;
      {p1_take, p1_clear, p1_set} <= '0;
      take_rvalid <= 1'b0;
      delay_waits <= 1'b0;
    end
  end

  assign p1_write = p1_set || p1_clear;
  assign working = p0_set || p1_set || p0_take || p1_take || delay_waits || local_waits || mesh_waits;

  // A word that is taken is of the step's own slot, which nobody sets: it needs no forwarding.
  assign low = 8'd1 << p1_bit[2:0];
  assign high = 4'd1 << p1_bit[4:3];
  always_comb begin
    for (int i = 0; i < 32; i++) newest[i] = ((again ? last[i] : read[i]) || (low[i%8] && high[i/8])) && !p1_clear;
  end

  nc_ram #(
      .WIDTH(32),
      .DEPTH(A / 2)
  ) ram (
      .clk,
      .we   (p1_write || host_we),
      .waddr(host ? host_addr : p1_addr),
      .wdata(host ? host_wdata : newest),
      .raddr(host ? host_addr : p0_addr),
      .rdata(read)
  );
endmodule
