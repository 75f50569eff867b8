//! The connection table that `ipvsadm -Lnc` prints (ipvsadm 1.31), byte for byte.

use super::ipvsadm::address;
use crate::kernel::ipvs::connections::Line;

/// Returns the table, in the order of the kernel.
pub(super) fn list(lines: &[Line]) -> String {
    let mut text = "IPVS connection entries\n\
                    pro expire state       source             virtual            destination\n"
        .to_owned();
    for line in lines {
        let [client, frontend, destination] = [line.client, line.frontend, line.destination]
            .map(|socket| address(socket.ip(), socket.port()));
        let expire = format!("{:02}:{:02}", line.expires_secs / 60, line.expires_secs % 60);
        text += &format!(
            "{:<3} {expire:<6} {:<11} {client:<18} {frontend:<18} {destination}\n",
            line.protocol, line.state
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::ipvs::connections::parse_lines;

    /// Both texts are of one moment, from Linux 6.12 and ipvsadm 1.31.
    #[test]
    fn templates_marks_and_both_families_are_printed_as_ipvsadm_does() {
        let kernel = "\
Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Expires PEName PEData
TCP 0A090001 C8BE 0A090001 0050 0A090106 0050 SYN_RECV         54
TCP fd00:0009:0000:0000:0000:0000:0000:0001 A642 fd00:0009:0000:0000:0000:0000:0000:0001 0050 \
fd00:0009:0000:0000:0000:0000:0000:0012 0050 SYN_RECV         54
IP  0A090001 0000 00000007 0000 0A090101 0000 NONE             28
TCP fd00:0009:0000:0000:0000:0000:0000:0000 0000 fd00:0009:0000:0000:0000:0000:0000:0001 0050 \
fd00:0009:0000:0000:0000:0000:0000:0012 0050 NONE             43
TCP 0A090001 0000 0A090001 0050 0A090106 0050 NONE             93
";
        let expected = "\
IPVS connection entries
pro expire state       source             virtual            destination
TCP 00:54  SYN_RECV    10.9.0.1:51390     10.9.0.1:80        10.9.1.6:80
TCP 00:54  SYN_RECV    [fd00:9::1]:42562  [fd00:9::1]:80     [fd00:9::12]:80
IP  00:28  NONE        10.9.0.1:0         0.0.0.7:0          10.9.1.1:0
TCP 00:43  NONE        [fd00:9::]:0       [fd00:9::1]:80     [fd00:9::12]:80
TCP 01:33  NONE        10.9.0.1:0         10.9.0.1:80        10.9.1.6:80
";
        assert_eq!(list(&parse_lines(kernel).unwrap()), expected);
    }
}
